# SPDX-License-Identifier: Apache-2.0
"""Weights that are stored compressed, decoded once when the program is loaded."""
