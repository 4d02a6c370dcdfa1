# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_int_clamp_one_side', verdict='FAIL', culprit_op='clip',
 source_url='https://github.com/apple/coremltools/pull/2839',
 expect='integers clamped in float16')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Embedding(6000, 4)
    def forward(self, i): return self.e(i.clamp(max=5999))
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[5999, 4097, 2049]], dtype=torch.int32),)
