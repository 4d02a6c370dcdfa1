# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_int_div_rounded', verdict='FAIL', culprit_op=['mul', 'cast'],
 source_url='https://github.com/apple/coremltools/pull/2839',
 expect='')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Embedding(6000, 4)
    def forward(self, i): return self.e(torch.div(i, 3, rounding_mode='trunc').int())
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[17999, 12345, 8191]], dtype=torch.int32),)
