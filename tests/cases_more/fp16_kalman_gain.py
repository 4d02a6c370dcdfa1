# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_kalman_gain', tier='wide', verdict='FAIL', culprit_op=['sub', 'mul', 'cast'],
 expect='1 - p with p near one, divided again')
class M(nn.Module):
    def forward(self, p): return (1 - p) / 1e-3
def build(): return M().eval()
def inputs(): return (1 - torch.logspace(-4, -3, 16)[None],)
