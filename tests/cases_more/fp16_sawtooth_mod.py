# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_sawtooth_mod', tier='wide', verdict='FAIL', culprit_op=['floor', 'sub', 'mul', 'cast', 'mod'],
 expect='the fraction of a large number')
class M(nn.Module):
    def forward(self, x):
        y = x * 37.1
        return y - torch.floor(y)
def build(): return M().eval()
def inputs(): return (torch.linspace(50, 90, 64)[None],)
