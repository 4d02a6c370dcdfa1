# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_inverse_depth_bounded', tier='none', verdict='PASS', culprit_op=None,
 expect='1 / clamp(depth, 0.1)')
class M(nn.Module):
    def forward(self, d): return torch.ones_like(d) / d.clamp(min=0.1)
def build(): return M().eval()
def inputs(): return (torch.linspace(0, 80, 64)[None],)
