# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_log_softmax_mild', tier='none', verdict='PASS', culprit_op=None,
 expect='log_softmax of mild logits')
class M(nn.Module):
    def forward(self, x): return F.log_softmax(x, -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 10),)
