# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_large_logits', tier='none', verdict='PASS', culprit_op=None,
 expect='logits of 500 into softmax')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.fc = nn.Linear(16, 10)
        with torch.no_grad(): self.fc.weight.mul_(400)
    def forward(self, x): return self.fc(x)
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.randn(2, 16),)
