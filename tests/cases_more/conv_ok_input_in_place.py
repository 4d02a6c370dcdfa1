# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_ok_input_in_place', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/blob/9.0/coremltools/converters/mil/frontend/torch/converter.py',
 expect='forward writes into its input: each run of the source needs one of its own')
class M(nn.Module):
    def forward(self, x):
        x += 1; x[:, 0] = 0; return x.relu_() * 2
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 5),)
