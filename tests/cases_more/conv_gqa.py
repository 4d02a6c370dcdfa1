# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_gqa', verdict='ROUTE', culprit_op='scaled_dot_product_attention',
 source_url='https://github.com/apple/coremltools/pull/2855',
 expect='fewer key heads than query heads: only the default decompositions know it')
class M(nn.Module):
    def forward(self, q, k): return F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8),)
