# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_conv1d_tcn', tier='none', verdict='PASS', culprit_op=None,
 expect='a temporal convolution network')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.c = nn.ModuleList(nn.Conv1d(8 if i else 4, 8, 3, padding=2**i, dilation=2**i) for i in range(4)); self.o = nn.Conv1d(8, 2, 1)
    def forward(self, x):
        for c in self.c: x = F.elu(c(x))
        return self.o(x)
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 4, 64),)
