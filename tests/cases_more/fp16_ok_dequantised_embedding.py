# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_dequantised_embedding', tier='none', verdict='PASS', culprit_op=None,
 expect='an embedding with a scale')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.e = nn.Embedding(2000, 16); self.f = nn.Linear(16, 8)
    def forward(self, ids): return self.f(self.e(ids) * 0.02).softmax(-1)
def build(): return M().eval()
def inputs(): return (torch.tensor([[1, 5, 1999, 77]], dtype=torch.int32),)
