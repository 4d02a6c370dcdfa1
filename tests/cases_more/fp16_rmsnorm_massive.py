# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_rmsnorm_massive', tier='wide', verdict='FAIL', culprit_op=['pow', 'mul', 'square', 'reduce_mean'],
 source_url='https://github.com/huggingface/swift-transformers/issues/95',
 expect='RMSNorm written by hand squares activations of 2,000')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.w = nn.Parameter(torch.ones(64))
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.w
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); x = torch.randn(1, 8, 64); x[:, :, 3] = 2000.0; return (x,)
