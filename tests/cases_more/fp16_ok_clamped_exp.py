# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_clamped_exp', tier='none', verdict='PASS', culprit_op=None,
 expect='exp overflows and is clamped at once')
class M(nn.Module):
    def forward(self, x): return torch.exp(x).clamp(max=1000.0)
def build(): return M().eval()
def inputs(): return (torch.linspace(-5, 15, 32)[None],)
