# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='dyn_ok_attention', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/issues/914',
 expect='attention over a flexible length', dynamic={0: {1: (4, 32)}})
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.q = nn.Linear(16, 48); self.o = nn.Linear(16, 16)
    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (p.reshape(b, t, 2, 8).transpose(1, 2) for p in self.q(x).chunk(3, -1))
        y = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
        return self.o(y.transpose(1, 2).reshape(b, t, 16))
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 8, 16),)
