# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_batchnorm_tiny_var', tier='wide', verdict='FAIL', culprit_op=['batch_norm', 'conv', 'mul'],
 source_url='https://github.com/apple/coremltools/pull/2822',
 expect='a batch norm whose running variance is 1e-9')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.bn = nn.BatchNorm2d(3, eps=1e-12)
    def forward(self, x): return self.bn(torch.tanh(x) * 1e-4)
def build():
    m = M().eval(); m.bn.running_var.fill_(1e-9); m.bn.running_mean.fill_(2e-5); return m
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 3, 8, 8),)
