# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='pit_wide_matmul', verdict='WARN', culprit_op='matmul',
 source_url='https://github.com/ncdrone/rustane/issues/13',
 expect='a reduction over more than 16,384')
class M(nn.Module):
    def forward(self, x, y): return x @ y
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 17000) * 0.01, torch.randn(17000, 4) * 0.01,)
