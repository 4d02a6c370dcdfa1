# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_alpha_next_line', verdict='FAIL', culprit_op='add', path='export',
 source_url='https://github.com/apple/coremltools/pull/2680',
 expect='alpha is dropped, and stands on another line than the call: only the values tell which op it is')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.l = nn.Linear(3, 4)
    def forward(self, x):
        a = self.l(x); b = torch.tanh(a)
        c = torch.add(
            a, b,
            alpha=3)
        return torch.exp(c) * 2
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 3),)
