# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_float_ids', verdict='FAIL', culprit_op='add',
 source_url='https://github.com/apple/coremltools/issues/1039',
 expect='row numbers that arrive as floats are rounded')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Embedding(6002, 4)
    def forward(self, x): return self.e((x + 1).long())
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.tensor([[5999.0, 4096.0, 2048.0]]),)
