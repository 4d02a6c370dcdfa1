# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_attention_4096_keys', tier='acc16', verdict='WARN', culprit_op=['matmul', 'softmax', 'linear', 'reduce_sum'],
 source_url='https://github.com/apple/coremltools/issues/2625',
 expect='uniform attention over 4,096 keys')
class M(nn.Module):
    def forward(self, q, k, v): return torch.softmax(q @ k.transpose(1, 2) * 0.1, -1) @ v
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 2, 8) * 0.1, torch.randn(1, 4096, 8) * 0.1, torch.rand(1, 4096, 4) + 1)
