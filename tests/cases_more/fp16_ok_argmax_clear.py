# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_argmax_clear', tier='none', verdict='PASS', culprit_op=None,
 expect='classes far apart: the answer is exact')
class M(nn.Module):
    def forward(self, x): return torch.argmax(x * 3.3, -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.stack([torch.randperm(10) for _ in range(16)]).float() * 7 - 20,)
