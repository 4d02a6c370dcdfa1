# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_manual_sigmoid', tier='none', verdict='PASS', culprit_op=None,
 expect='exp overflows into 1/(1+inf) = 0')
class M(nn.Module):
    def forward(self, x): return 1 / (1 + torch.exp(-x))
def build(): return M().eval()
def inputs(): return (torch.linspace(-20, 20, 41)[None],)
