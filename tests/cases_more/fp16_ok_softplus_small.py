# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_softplus_small', tier='none', verdict='PASS', culprit_op=None,
 expect='softplus below the cliff')
class M(nn.Module):
    def forward(self, x): return F.softplus(x) + x
def build(): return M().eval()
def inputs(): return (torch.linspace(-8, 8, 64)[None],)
