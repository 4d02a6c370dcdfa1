# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_softmax_temperature', tier='wide', verdict='FAIL', culprit_op=['real_div', 'mul', 'softmax'],
 expect='logits divided by a temperature of 0.001 are beyond 65,504 in several places of a row')
class M(nn.Module):
    def forward(self, x): return torch.softmax(x / 0.001, -1)
def build(): return M().eval()
def inputs():
    return (torch.tensor([[80.0, 70.0, 10.0, 3.0], [66.0, 66.02, 1.0, 2.0]]),)
