# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_int_mean_ids', tier='declared', verdict='FAIL', culprit_op=['mul', 'add', 'cast', 'floor', 'real_div', 'floor_div', 'sub', 'gather'],
 source_url='https://github.com/apple/coremltools/pull/2839',
 expect='the middle of two ids by true division')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.e = nn.Embedding(8000, 8)
    def forward(self, ids): return self.e(torch.floor((ids + 1) / 2).long())
def build(): return M().eval()
def inputs(): return (torch.tensor([[5, 9999, 8195, 10001, 7]], dtype=torch.int32),)
