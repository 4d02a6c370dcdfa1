# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_maxpool_padding', tier='none', verdict='PASS', culprit_op=None,
 expect='max pool pads with -inf')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.c = nn.Conv2d(3, 8, 3, padding=1); self.p = nn.MaxPool2d(3, 2, 1)
    def forward(self, x): return self.p(self.c(x))
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 3, 16, 16),)
