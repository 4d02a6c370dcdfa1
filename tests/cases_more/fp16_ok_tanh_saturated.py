# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_tanh_saturated', tier='none', verdict='PASS', culprit_op=None,
 expect='an overflow into tanh')
class M(nn.Module):
    def forward(self, x): return torch.tanh(x * 1000.0 * x)
def build(): return M().eval()
def inputs(): return (torch.linspace(-30, 30, 61)[None],)
