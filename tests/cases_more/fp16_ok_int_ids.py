# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_ok_int_ids', tier='none', verdict='PASS', culprit_op=None,
 expect='embedding of ids above 32,768 in integers')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.e = nn.Embedding(50000, 4)
    def forward(self, ids): return self.e(ids)
def build(): return M().eval()
def inputs(): return (torch.tensor([[5, 33000, 49999, 2049, 4097]], dtype=torch.int32),)
