# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_unix_time', tier='wide', verdict='FAIL', culprit_op=['mul'],
 expect='seconds since 1970 do not fit in float16')
class M(nn.Module):
    def forward(self, t): return torch.sin((t - 1.7e9) / 86400.0)
def build(): return M().eval()
def inputs(): return (1.7e9 + torch.arange(32).float() * 4096,)
