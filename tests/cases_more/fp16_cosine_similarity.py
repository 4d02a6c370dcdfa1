# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_cosine_similarity', tier='wide', verdict='FAIL', culprit_op=['mul', 'reduce_sum'],
 source_url='https://github.com/apple/coremltools/issues/2110',
 expect='cosine_similarity multiplies the squared norms of both vectors')
class M(nn.Module):
    def forward(self, a, b): return F.cosine_similarity(a, b, dim=-1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 128) * 6, torch.randn(4, 128) * 6)
