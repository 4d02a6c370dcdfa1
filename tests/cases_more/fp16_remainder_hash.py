# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_remainder_hash', tier='declared', verdict='FAIL', culprit_op=['mod', 'mul', 'floor_div', 'cast', 'sub', 'real_div', 'floor', 'add'],
 source_url='https://github.com/apple/coremltools/pull/2839',
 expect='a bucket by remainder of a large id')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.e = nn.Embedding(97, 8)
    def forward(self, ids): return self.e(torch.remainder(ids.float(), 97.0).long())
def build(): return M().eval()
def inputs(): return (torch.tensor([[5, 59999, 4097, 20491, 7]], dtype=torch.int32),)
