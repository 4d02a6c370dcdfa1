# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_int_floor_div', verdict='PASS', culprit_op=None,
 source_url='https://github.com/apple/coremltools/pull/2839',
 expect='divided as integers')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Embedding(6000, 4)
    def forward(self, i): return self.e(i // 3)
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[17999, 12345, 8191]], dtype=torch.int32),)
