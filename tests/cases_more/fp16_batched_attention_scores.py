# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_batched_attention_scores', tier='wide', verdict='FAIL', culprit_op=['matmul', 'mul', 'softmax'],
 expect='attention logits scaled after the product')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.q = nn.Linear(64, 64); self.k = nn.Linear(64, 64); self.v = nn.Linear(64, 64)
    def forward(self, x):
        b, n, d = x.shape
        q, k, v = (f(x).view(b, n, 4, 16).transpose(1, 2) for f in (self.q, self.k, self.v))
        return torch.softmax((q @ k.transpose(-1, -2)) / 4.0, -1) @ v
def build():
    m = M().eval()
    with torch.no_grad(): m.q.weight.mul_(60); m.k.weight.mul_(60)
    return m
def inputs():
    torch.manual_seed(1); return (torch.randn(1, 12, 64) * 4,)
