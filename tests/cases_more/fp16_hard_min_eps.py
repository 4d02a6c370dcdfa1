# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_hard_min_eps', tier='wide', verdict='FAIL', culprit_op=['cast', 'maximum', 'clip', 'add', 'real_div', 'mul'],
 expect='a division guarded by clamp(min=1e-8)')
class M(nn.Module):
    def forward(self, a, b): return a / b.clamp(min=1e-8)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); b = torch.logspace(-7, 0, 16)[None]; return (b * (1 + torch.rand(1, 16)), b)
