# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_float32_island', verdict='WARN', culprit_op='mul',
 source_url='https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/mil/passes/defs/quantization.py',
 expect='a constant above 65504 keeps an op in float32')
class M(nn.Module):
    def forward(self, x): return (x * 1e-6) * 100000.0
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 8),)
