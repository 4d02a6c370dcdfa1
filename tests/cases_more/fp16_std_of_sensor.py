# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_std_of_sensor', tier='wide', verdict='FAIL', culprit_op=['rsqrt', 'mul', 'pow', 'square', 'reduce_mean', 'sub'],
 expect='the variance of a sensor in volts, about 1e-9')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.fc = nn.Linear(32, 4)
    def forward(self, x):
        d = x - x.mean(-1, keepdim=True)
        return self.fc(d * torch.rsqrt(d.pow(2).mean(-1, keepdim=True) + 1e-15))
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 32) * 3e-5,)
