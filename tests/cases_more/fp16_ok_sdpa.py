# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_sdpa', tier='none', verdict='PASS', culprit_op=None,
 expect='scaled dot-product attention')
class M(nn.Module):
    def forward(self, q, k, v): return F.scaled_dot_product_attention(q, k, v)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return tuple(torch.randn(1, 4, 16, 16) for _ in range(3))
