# SPDX-License-Identifier: Apache-2.0
import math
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_time_embedding_days', tier='wide', verdict='FAIL', culprit_op=['mul', 'cast', 'cos', 'sin', 'sub', 'add'],
 expect='days since 1970 in a Fourier feature')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.fc = nn.Linear(2, 4)
    def forward(self, d):
        a = d * (2 * math.pi / 7)
        return self.fc(torch.cat([a.sin(), a.cos()], -1))
def build(): return M().eval()
def inputs(): return (torch.arange(19000.0, 19032.0)[:, None],)
