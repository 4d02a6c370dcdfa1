# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_gru_unrolled_gain', tier='wide', verdict='FAIL', culprit_op=['mul', 'add', 'linear', 'tanh'],
 expect='a linear recurrence whose state grows beyond 65,504 and is normalised at the end')
class M(nn.Module):
    def forward(self, x):
        h = x[:, 0]
        for t in range(1, 12):
            h = 3.0 * h + x[:, t]
        return h / 3.0 ** 11
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(2, 12, 4) + 0.5,)
