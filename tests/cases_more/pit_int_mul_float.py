# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_int_mul_float', verdict='FAIL', culprit_op='mul',
 source_url='https://github.com/apple/coremltools/pull/2839',
 expect='a position is computed in float and used as a row number')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Embedding(6000, 4)
    def forward(self, i): return self.e((i * 0.5).long())
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[11999, 8195, 4099]], dtype=torch.int32),)
