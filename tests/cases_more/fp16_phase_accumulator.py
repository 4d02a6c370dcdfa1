# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_phase_accumulator', tier='wide', verdict='FAIL', culprit_op=['cumsum', 'sin', 'mul'],
 expect='a sine from a running phase')
class M(nn.Module):
    def forward(self, f): return torch.sin(torch.cumsum(f, -1) * 0.3927)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(1, 1024) * 3 + 1,)
