# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn

CASE = dict(
 id='fp16_float_table_index', tier='wide', verdict='FAIL', culprit_op=['mul', 'add', 'cast', 'floor'],
 source_url='https://github.com/apple/coremltools/issues/2193',
 expect='a table index beyond 2,048 computed in float')
class M(nn.Module):
    def __init__(self):
        super().__init__(); torch.manual_seed(0); self.table = nn.Embedding(6000, 8)
    def forward(self, x): return self.table(torch.floor(x * 6000.0).long())
def build(): return M().eval()
def inputs():
    torch.manual_seed(1); return (torch.rand(1, 32) * 0.4 + 0.5,)
