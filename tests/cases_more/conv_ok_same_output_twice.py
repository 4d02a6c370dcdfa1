# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_ok_same_output_twice', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/frontend/torch/converter.py',
 expect='one value under two names, and an input handed on: coremltools has one name for a value')
class M(nn.Module):
    def forward(self, x):
        y = torch.relu(x); return y, x, y
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 5),)
