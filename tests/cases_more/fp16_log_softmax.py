# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_log_softmax', tier='wide', verdict='FAIL', culprit_op=['softmax', 'log'],
 source_url='https://github.com/apple/coremltools/tree/9.0/coremltools/converters/mil/frontend/torch/ops.py',
 expect='log_softmax is lowered to softmax and log: what softmax loses becomes -inf')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.head = nn.Linear(16, 10)
    def forward(self, x): return F.log_softmax(self.head(x), -1)
def build():
    torch.manual_seed(0); m = M().eval()
    with torch.no_grad(): m.head.weight.mul_(14)
    return m
def inputs():
    torch.manual_seed(1); return (torch.randn(4, 16),)
