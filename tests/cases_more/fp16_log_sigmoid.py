# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_log_sigmoid', tier='wide', verdict='FAIL', culprit_op=['sigmoid', 'log'],
 expect='log(sigmoid(x)) at x = -30')
class M(nn.Module):
    def forward(self, x): return torch.log(torch.sigmoid(x))
def build(): return M().eval()
def inputs(): return (torch.linspace(-30, 10, 41)[None],)
