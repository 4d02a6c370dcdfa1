# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_tiny_scale', tier='wide', verdict='FAIL', culprit_op=['mul'],
 source_url='https://github.com/apple/coremltools/issues/351',
 expect='a factor of 1e-9 that a later factor of 1e8 takes back')
class M(nn.Module):
    def forward(self, x, g):
        small = x * 1e-5 * g
        return torch.tanh(small * 1e9)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.rand(4, 16) + 0.1, torch.rand(4, 16) * 1e-4)
