# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_softmax_times_many', tier='wide', verdict='FAIL', culprit_op=['mul', 'softmax'],
 expect='attention weights below 6e-8 that a long sum brings back')
class M(nn.Module):
    def forward(self, x):
        p = torch.softmax(x, -1)
        return torch.log((p * 1e-4).sum(-1) + p[:, 0] * 1e-4)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(2, 8192) * 0.1,)
