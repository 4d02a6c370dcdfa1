# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_mish_ane', tier='narrow', verdict='FAIL', culprit_op=['softplus'],
 source_url='https://github.com/apple/coremltools/issues/2359',
 expect='Mish is x * tanh(softplus(x)); softplus returns 0 above 10.4 on the Neural Engine')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.conv = nn.Conv2d(1, 4, 1); self.act = nn.Mish()
    def forward(self, x): return self.act(self.conv(x))
def build():
    m = M().eval()
    with torch.no_grad(): m.conv.weight.fill_(1.0); m.conv.bias.zero_()
    return m
def inputs(): return (torch.linspace(-12, 14, 64).view(1, 1, 8, 8),)
