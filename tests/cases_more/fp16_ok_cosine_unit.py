# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='fp16_ok_cosine_unit', tier='none', verdict='PASS', culprit_op=None,
 expect='cosine similarity of vectors of ordinary length')
class M(nn.Module):
    def forward(self, a, b): return F.cosine_similarity(a, b, dim=-1)
def build(): return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(4, 64), torch.randn(4, 64))
