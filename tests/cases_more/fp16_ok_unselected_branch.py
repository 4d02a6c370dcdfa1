# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_unselected_branch', tier='none', verdict='PASS', culprit_op=None,
 expect='the branch that overflows is not selected')
class M(nn.Module):
    def forward(self, x): return torch.where(x.abs() < 200.0, x * x / 200.0, x)
def build(): return M().eval()
def inputs(): return (torch.linspace(-1000, 1000, 101)[None],)
