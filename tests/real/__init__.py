# SPDX-License-Identifier: Apache-2.0
"""Trained models and labelled data that travel in wheels."""
