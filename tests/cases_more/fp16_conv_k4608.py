# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_conv_k4608', tier='acc16', verdict='WARN', culprit_op=['conv'],
 source_url='https://github.com/apple/coremltools/issues/2625',
 expect='512 channels of 3×3, all positive')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.c = nn.Conv2d(512, 4, 3, bias=False)
        with torch.no_grad(): self.c.weight.abs_().mul_(20)
    def forward(self, x): return self.c(x)
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.rand(1, 512, 4, 4),)
