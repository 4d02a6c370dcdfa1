# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_argmax_flips', tier='wide', verdict='FAIL', culprit_op=['linear', 'cast', 'matmul', 'reduce_argmax'],
 expect='two classes that differ by less than a step of float16')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); w = torch.randn(1, 32).repeat(4, 1); self.fc = nn.Linear(32, 4, bias=False)
        with torch.no_grad(): self.fc.weight.copy_(w + torch.randn(4, 32) * 2e-4)
    def forward(self, x): return torch.argmax(self.fc(x), -1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(64, 32) * 10,)
