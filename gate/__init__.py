# SPDX-License-Identifier: Apache-2.0
"""coreml-gate: the check that a Core ML model passes before it is merged."""

__version__ = "0.1.0"
